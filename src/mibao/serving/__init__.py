"""The privacy gateway: personal data is replaced on the way to a model service and restored on the way back.

It runs on the user's side; the model service is not trusted. Misses are possible: nothing here is called anonymous.
"""
