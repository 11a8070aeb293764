#!/usr/bin/env bash
# Prints an overlay's manifests for one sweep, so that two sweeps share no Job, RayJob or file.
#   bash cluster/kuberay/render.sh OVERLAY NAME
set -euo pipefail

overlay=$(cd "$(dirname "$0")" && pwd)/$1
name=$2
if ! [[ $name =~ ^[a-z0-9]([-a-z0-9]{0,39}[a-z0-9])?$ ]]; then
  echo "error: NAME $name: Kubernetes takes at most 41 of a-z, 0-9 and - in it, and no - at its ends" >&2
  exit 2
fi
kubectl kustomize "$overlay" |
  sed -e "s/posetune-sweep/sweep-$name/g" -e "s/posetune-check/check-$name/g" -e "s/SWEEP-NAME/$name/g"
