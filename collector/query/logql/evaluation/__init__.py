"""
What LogQL means for log documents: labels, stages, windows, vectors.

`logs.select` answers a log query, `metrics.evaluate` a metric query. Both read documents from a
`Source` in the order of time, page by page, and keep no more than their `Budget` allows; both are
plain synchronous code, so that a server runs them in a thread and the command line as they are.
"""
