package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	errMisunderstood uint = 110 // the agent's answer isn't what this program knows: an upgrade that stopped half-way

	inFile = "look at the runtime's network configuration, usually /etc/cni/net.d/10-tortie.conflist, which the agent writes"

	shown = 100 // characters of a value in an error
)

// whereToLook says what to do about an agent that doesn't answer.
func whereToLook(cause error) string {
	return fmt.Sprintf("%s; see `kubectl get pods -A -o wide | grep tortie-agent` for this node's agent, and its log", cause)
}

func misunderstood(said []byte, why string) error {
	return types.NewError(errMisunderstood, "the answer of Tortie's agent isn't understood: "+why,
		fmt.Sprintf("it said %s; are plugin and agent of one version? A restart of the agent installs its plugin", quoted(string(said))))
}

func tryLater(what string, cause error) error {
	return types.NewError(types.ErrTryAgainLater, what, whereToLook(cause))
}

// explained adds to an error of skel's what it leaves out: the value, and the way out.
func explained(e *types.Error, stdin []byte) *types.Error {
	switch {
	case e.Code == types.ErrInvalidEnvironmentVariables:
		e.Details = also(e.Details, environment()+"; the container runtime sets these, see the CNI specification, section 2")
	case len(stdin) > largest:
		e = types.NewError(types.ErrInvalidNetworkConfig, "the network configuration is larger than 4 MiB", inFile)
	case e.Code == types.ErrIncompatibleCNIVersion, e.Code == types.ErrDecodingFailure && aboutVersion(e.Msg):
		e = types.NewError(types.ErrIncompatibleCNIVersion, fmt.Sprintf("cniVersion %s isn't one that this plugin knows for %s",
			cniVersion(stdin), os.Getenv("CNI_COMMAND")), also(e.Msg, knownVersions()))
	case e.Code == types.ErrDecodingFailure, e.Code == types.ErrInvalidNetworkConfig:
		e.Details = also(e.Details, "stdin is "+quoted(string(stdin))+"; "+inFile)
	}
	return e
}

func knownVersions() string {
	return fmt.Sprintf("it may be %s; CHECK came with 0.4.0, GC and STATUS with 1.1.0; %s",
		strings.Join(supported.SupportedVersions(), ", "), inFile)
}

// aboutVersion tells whether a message of skel's is that of version.ParseVersion.
func aboutVersion(message string) bool {
	_, _, _, asNumber := version.ParseVersion("x")
	_, _, _, asParts := version.ParseVersion("1.1.1.1")
	for _, err := range []error{asNumber, asParts} {
		if before, _, _ := strings.Cut(err.Error(), " version"); strings.HasPrefix(message, before) {
			return true
		}
	}
	return false
}

func environment() string {
	var all []string
	for _, name := range []string{"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"} {
		all = append(all, name+"="+quoted(os.Getenv(name)))
	}
	return strings.Join(all, " ")
}

func quoted(value string) string {
	if runes := []rune(value); len(runes) > shown {
		return fmt.Sprintf("%q… (%d bytes)", string(runes[:shown]), len(value))
	}
	return fmt.Sprintf("%q", value)
}

func also(before, more string) string {
	if before == "" {
		return more
	}
	return before + "; " + more
}
