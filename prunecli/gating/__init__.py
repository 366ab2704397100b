"""Gates in a traced network: functions of logits, the bank that multiplies them in, and where."""
