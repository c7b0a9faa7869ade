"""Which requests are worked on now, which wait, and which are told to come back later.

costs      how much work a question will be, before anything of its clip is known
gate       bounded work under way, a fair queue before it, an honest time to come back
admitted   both before a backend
"""
