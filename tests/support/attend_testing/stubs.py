"""The generated Python classes, those of gRPC's own protocols included.

The build writes grpc/health/v1/... and google/rpc/... beside attend/v1/..., under the names of packages that are
installed elsewhere: their search paths are extended so that both are found.
"""

import contextlib
import ctypes
import os
import pathlib

import google
import grpc

# Abseil reads two files now and not while a connection is made (client/lib/connect_errno.h); other builds of gRPC have no such library.
with contextlib.suppress(OSError, AttributeError):
    _absl = ctypes.CDLL("libabsl_base.so.20220623")
    _absl._ZN4absl7debian313base_internal7NumCPUsEv()
    _absl._ZN4absl7debian313base_internal19NominalCPUFrequencyEv()

_GENERATED = pathlib.Path(os.environ["ATTEND_BUILD_DIR"]) / "generated" / "python"
grpc.__path__.append(str(_GENERATED / "grpc"))
google.__path__.append(str(_GENERATED / "google"))

from attend.v1 import attention_service_pb2 as pb
from attend.v1 import attention_service_pb2_grpc as pb_grpc
from attend.v1 import layer_service_pb2 as layers_pb
from attend.v1 import layer_service_pb2_grpc as layers_grpc
from attend.v1 import tensor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc.health.v1 import health_pb2, health_pb2_grpc
from grpc.reflection.v1 import reflection_pb2, reflection_pb2_grpc
from grpc.reflection.v1alpha import reflection_pb2 as reflection_alpha_pb2
from grpc.reflection.v1alpha import reflection_pb2_grpc as reflection_alpha_pb2_grpc
