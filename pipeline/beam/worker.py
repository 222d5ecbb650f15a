"""A worker of the Beam job that runs in an environment with this package, without a container.

Runners start workers with a program that follows Beam's container contract: it gets its name and
the address of a service that has the rest. Installing the package puts this program beside Python.
Beam's flags for Flink and Spark on machines where it is installed are:

    --environment_type=PROCESS
    --environment_options=process_command=/opt/voices/bin/voices-apart-worker
"""

import argparse
import os

import grpc
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

_TIMEOUT_SECONDS = 60


def main() -> None:
    """Works for one runner until the runner has no more work."""
    parser = argparse.ArgumentParser(description="Started by a Beam runner, not by a person.")
    parser.add_argument("--id", required=True, help="the worker's name")
    parser.add_argument("--provision_endpoint", required=True, help="where the job is described")
    arguments, _ = parser.parse_known_args()
    os.environ.update(environment(arguments.id, arguments.provision_endpoint))
    sdk_worker_main.main([])


def environment(worker: str, endpoint: str) -> dict[str, str]:
    """Returns the environment variables of Beam's worker, from the runner's provision service.

    Args:
        worker: name that the runner has given.
        endpoint: host and port of the service.
    """
    # A proxy for outside connections must not be used for the runner.
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(endpoint, options) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        info = service.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", worker)],
            timeout=_TIMEOUT_SECONDS,
        ).info
    found = {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    services: dict[str, endpoints_pb2.ApiServiceDescriptor] = {
        "CONTROL": info.control_endpoint,
        "LOGGING": info.logging_endpoint,
        "STATUS": info.status_endpoint,
    }
    for name, descriptor in services.items():
        if descriptor.url:
            found[f"{name}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(descriptor)
    return found


if __name__ == "__main__":
    main()
