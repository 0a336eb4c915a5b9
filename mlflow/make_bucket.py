"""`python make_bucket.py NAME`: make the bucket of MLflow's artifacts, if the S3 store does not have it yet."""

from __future__ import annotations

import os
import sys

import boto3
from botocore.exceptions import ClientError


def main() -> None:
    store = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
    try:
        store.create_bucket(Bucket=sys.argv[1])
    except ClientError as fault:
        if fault.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    store.head_bucket(Bucket=sys.argv[1])  # it is there, and these keys open it


main()
