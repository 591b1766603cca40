"""
A hundred secrets as programs leak them, and a hundred values that only look like it.

`SECRETS` has (what must not be seen, attribute name or None for the text of a message, value).
Tokens are put together here, so that no scanner of sources takes them for real ones.
"""

import base64
import json

DIGITS = "0123456789"
MIXED = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"


def jwt(number):
    """A token of three parts."""
    parts = [{"alg": "HS256"}, {"sub": f"user-{number}", "iat": 1760000000 + number}]
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )
    return f"{head}.{body}.{MIXED}{number:04}Sig-_x"


def basic(number):
    return base64.b64encode(f"admin{number}:pa55-{number}".encode()).decode()


def pem(kind, number):
    body = "\n".join(f"MIIE{MIXED}{number}{line}{MIXED}" for line in range(4))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"


KEYS = [
    *(
        "password",
        "db_password",
        "userPassword",
        "PASSWORD",
        "passwd",
        "new_password_2",
        "mysql.pwd",
    ),
    *("secret", "client_secret", "aws.secret_access_key", "SecretKey", "token", "access_token"),
    *("refreshToken", "x-auth-token", "X-Api-Key", "apikey", "stripe.api_key", "private_key"),
    *(
        "http.request.header.authorization",
        "http.request.header.cookie",
        "set-cookie",
        "csrf_token",
    ),
    *("sentry.dsn", "passphrase", "connection_string", "jwt", "otp_code_2", "seed_phrase"),
]
SECRETS = [(f"hunter{number}x", key, f"hunter{number}x") for number, key in enumerate(KEYS)]

SHAPES = [
    jwt(1),
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ASIA" + "Y34FZKBOKMUTVV7A",
    "ghp_" + MIXED + "0123456789",
    "gho_" + MIXED + "9876543210",
    "github_pat_" + MIXED + "_" + MIXED,
    "xoxb-" + "123456789012-" + MIXED,
    "xoxp-" + "210987654321-" + MIXED,
    "sk_live_" + MIXED,
    "rk_test_" + MIXED,
    "whsec_" + MIXED,
    "AIza" + "SyA" + MIXED + "56789",
    "ya29." + MIXED + MIXED,
    "glpat-" + MIXED[:20],
    "npm_" + MIXED + "0123456789",
    "hf_" + MIXED + "0123456789",
    "sk-proj-" + MIXED + MIXED,
    "sk-ant-api03-" + MIXED + MIXED,
    "SG." + MIXED[:22] + "." + MIXED + MIXED[:16],
    "pypi-" + "AgEIcHlwaS5vcmc" + MIXED,
    "1234567890:AA" + MIXED + "abcdef",
    "GOCSPX-" + MIXED,
    "4111" + "1111" + "1111" + "1111",
    "5500 0055 " + "5555 5559",
    "3782-822463-" + "10005",
    pem("RSA ", 1),
    pem("", 2),
    pem("OPENSSH ", 3).replace("\n", "\\n"),
]
SECRETS += [
    (shape, *(("payload", shape) if number % 2 else (None, f"call failed with {shape} given")))
    for number, shape in enumerate(SHAPES)
]

TEXTS = [
    "https://admin:{0}@db.example.org/orders",
    "postgresql://shop:{0}@10.0.0.5:5432/shop?sslmode=require",
    "mongodb+srv://root:{0}@cluster0.mongodb.net/?retryWrites=true",
    "redis://:{0}@cache:6379/0",
    "https://api.example.org/v1/orders?api_key={0}&page=2",
    "/callback?code={0}&state=abc",
    "https://x.blob.core.windows.net/c/f?sv=2020&sig={0}&se=2030",
    "/login?user=bob&password={0}",
    "https://h/?access_token={0}#top",
    "login failed: password={0}",
    "login failed: password: {0}",
    "Invalid password '{0}' for user bob",
    "kwargs={{'user': 'bob', 'password': '{0}'}}",
    "args=('bob',) kwargs={{'api_key': \"{0}\"}}",
    'body={{"user": "bob", "secret": "{0}"}}',
    'body={{"a": {{"b": [{{"refresh_token": "{0}"}}]}}}}',
    '"{{\\"password\\": \\"{0}\\", \\"n\\": 1}}"',
    '{{"outer": "{{\\"inner\\": \\"{{\\\\\\"token\\\\\\": \\\\\\"{0}\\\\\\"}}\\"}}"}}',
    "headers={{'Authorization': 'Token {0}'}}",
    "Authorization: Token {0}\r\nHost: h",
    "Cookie: theme=dark; sid={0}",
    "curl -H 'X-Api-Key: {0}' https://h",
    "psql --password {0} -h db",
    "tool --api-key={0} run",
    "Server=db;User Id=sa;Password={0};Encrypt=true",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={0};EndpointSuffix=core",
    "os.environ['DB_PASSWORD'] = '{0}'",
    "export AWS_SECRET_ACCESS_KEY={0}",
    "Key (token)=({0}) already exists.",
    "User(id=1, password='{0}', active=True)",
    "KeyError: {{'client_secret': '{0}'}}",
    'File "a.py", line 3, in f\n    connect(user, password="{0}")\nValueError: no',
    "grant_type=password&username=bob&password={0}",
    "secret => {0}",
    "config.passphrase = {0}",
    "token:{0}",
    "%3Fx%3D1%26api_key%3D{0}",
    "PASSWORD={0} python manage.py",
    '{{"credentials": {{"user": "bob", "key": "{0}"}}}}',
    "passwords=['{0}', 'b']",
]
SECRETS += [(f"zebra{n}pQ", None, text.format(f"zebra{n}pQ")) for n, text in enumerate(TEXTS)]
SECRETS += [
    (jwt(7), None, f"Authorization: Bearer {jwt(7)}"),
    (MIXED + "1", None, f"sent Bearer {MIXED}1 to peer"),
    (basic(1), None, f"header Basic {basic(1)} refused"),
]

WALLET = "0x52908400098527886E0F7030069857D2E4169EE7"
EMAIL = "alice.smith@example.com"

HARMLESS = [
    *("550e8400-e29b-41d4-a716-446655440000", "4bf92f3577b34da6a3ce929d0e0e4736"),
    *("00f067aa0ba902b7", "01JAB3DE6GH9JK2MN5PQ8ST1VW", "o-1", "order-4111111111111111", "t-1"),
    *("da39a3ee5e6b4b0d3255bfef95601890afd80709", "d41d8cd98f00b204e9800998ecf8427e"),
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "0x" + "ab" * 32,
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    *("1760000000000", "1760000000000000000", "2025-10-03T10:30:15.123456+00:00", "20251003103015"),
    *("4111111111111112", "1234567890123456", "+49 30 123456", "192.168.0.1", "2001:db8::1"),
    *("[::1]:4318", "http://localhost:4318/v1/traces", "https://example.org/a?page=2&limit=10"),
    *("postgresql://db:5432/shop", "redis://cache:6379/0", "git@github.com:org/repo.git"),
    *(
        "celery@worker-1",
        "celery@worker-1.example.com",
        "worker@node7.cluster.local",
        "pkg@4.17.21",
    ),
    *("order loaded", "basic understanding of tokens", "bearer certificates are old paper"),
    *("the password was changed", "password reset requested", "token expired", "invalid token"),
    *(
        "secret santa starts",
        "tokens used: 512",
        "input_tokens=100 output_tokens=20",
        "max_tokens: 500",
    ),
    *(
        "token_count=12",
        "token: 12",
        "has_password=True",
        "password=None",
        "password: ",
        "secret=''",
    ),
    *("passed=3 failed=0", "pass rate 0.97", "compass: north", "author=bob", "authorized: yes"),
    *("authority=court", "keyboard: us", "monkey=1", "turkey: 3", "key=value", "keys: 12"),
    *("cookie_consent=yes", "cookies accepted", "secretary: Ann", "tokenizer=bpe", "detokenize: 3"),
    *(
        "SELECT id FROM users WHERE id = 1",
        "UPDATE t SET a = 1",
        "Traceback (most recent call last):",
    ),
    *('File "/srv/app/shop.py", line 3, in load', "ValueError: bad order", "    return a == b"),
    *(
        "text/html; charset=utf-8",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
        "max-age=3600",
    ),
    *(
        "python -m shop --workers 2 --reload",
        "uvicorn shop:app --port 8000",
        "a.b.c.d",
        "x@y",
        "@app.task",
    ),
    *(
        "v1.2.3-rc.1+build.5",
        "sk-learn-is-a-nice-library-to-use",
        "eyJust a word",
        "ghp_short",
        "AKIA",
    ),
    *(
        "[REDACTED]",
        "0x12345678...",
        "a...@example.com",
        "***",
        "0x1234",
        "bc1 is a prefix",
        "12:30:15",
    ),
    *(
        "3.141592653589793",
        "4.111111111111111",
        "-1e-9",
        "1A2B3C",
        "risk.score.final",
        "deDE",
        "EURUSD",
    ),
    *("{'items': 3, 'total': 129.9}", '{"id": "o-1", "n": [1, 2]}', "k1=v1;k2=v2", "a&b", "100 %"),
    *("1b4e28ba-2fa1-11d2-883f-0016d3cca427", "urn:isbn:9780306406157", "ISBN 978-0-306-40615-7"),
    *(
        "order_id=4111111111111111",
        "DE",
        "größer: ja",
        "世界=1",
        "signature mismatch",
        "state=open",
    ),
    *("code=404", "session: 3", "auth method: basic", "ticket=5"),
]
