"""How many replicas of each stage a load needs: `python -m deploy.capacity --help`.

model   one deployment under one load, as discrete events
plan    the cheapest deployment that meets a bound on the time to answer
"""
