"""`amqp-bridge check`: whether a bridge with these settings would run, asked without a trace.

Begin with `check`, which prints; `inspection` judges what `inquiry` has asked the brokers.
"""
