"""Quantization: a folded network in int8, calibrated on samples, with the noise that each layer adds."""

from edgevit.quantization.calibration import Calibration, calibrate
from edgevit.quantization.quantized import CalibrationData, Quantized, quantize, requantize
from edgevit.quantization.simulation import Simulator
from edgevit_runtime.dialect import Dialect

__all__ = [
    "Calibration",
    "CalibrationData",
    "Dialect",
    "Quantized",
    "Simulator",
    "calibrate",
    "quantize",
    "requantize",
]
