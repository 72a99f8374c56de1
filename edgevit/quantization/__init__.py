"""Quantization: a folded network in int8, calibrated on samples, with the noise that each layer adds."""

from edgevit.quantization.calibration import Calibration, calibrate
from edgevit.quantization.dialect import Dialect
from edgevit.quantization.quantized import CalibrationData, Options, Quantized, quantize
from edgevit.quantization.simulation import Simulator

__all__ = ["Calibration", "CalibrationData", "Dialect", "Options", "Quantized", "Simulator", "calibrate", "quantize"]
