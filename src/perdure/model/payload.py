"""Payloads: values as JSON, typed from annotations. The names that other rooms use, each from its file."""

from __future__ import annotations

from perdure.model.raised import exception_data, rebuild_exception
from perdure.model.shape import Shape
from perdure.model.signature import Signature
from perdure.model.strict import BLOB_MIN_DEFAULT, blob_hash, blob_ref, canonical, input_hash, is_blob, strict_json

__all__ = [
    "BLOB_MIN_DEFAULT",
    "Shape",
    "Signature",
    "blob_hash",
    "blob_ref",
    "canonical",
    "exception_data",
    "input_hash",
    "is_blob",
    "rebuild_exception",
    "strict_json",
]
