"""Work spread over the workers of a Ray cluster. Needs the extra ``ray``.

Ray sends tasks as pickles between its own processes, so whoever reaches a cluster's ports can run code on it: keep them
on a network that is trusted, or set Ray's token authentication (docs/fleet.md). Nothing here reads a pickle from a file.
"""
