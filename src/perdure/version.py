"""The version of perdure, as packages and histories hold it."""

VERSION = "0.1.0"
