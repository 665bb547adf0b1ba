//go:build tools

// Package commands pins the helm command that installs the chart in tests and in the demo.
package commands

import _ "helm.sh/helm/v3/cmd/helm"
