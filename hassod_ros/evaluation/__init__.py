"""How good are masks: recall, precision, covering, composition and calibration, without looking at classes."""
