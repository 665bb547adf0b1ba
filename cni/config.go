package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	defaultSocket   = "/run/tortie/agent.sock"
	defaultDeferred = "/var/lib/tortie/deferred"
	defaultWait     = 60.0 // seconds; a kubelet whose ADD failed tries again only after 10 s and more
	longestWait     = 3600.0
	longestSocket   = 107 // bytes; unix(7): sun_path has 108, a NUL included
)

// config is what of the network configuration (stdin) is meant for this program; the agent gets all of it.
type config struct {
	CNIVersion       string          `json:"cniVersion"`
	Name             string          `json:"name"`
	PrevResult       map[string]any  `json:"prevResult"`
	ValidAttachments json.RawMessage `json:"cni.dev/valid-attachments"` // of GC

	// What the pod wants, of the capabilities that the configuration names.
	RuntimeConfig runtimeConfig `json:"runtimeConfig"`

	Socket      string   `json:"socket"`      // of the agent; absolute
	Deferred    string   `json:"deferred"`    // folder where DELs wait for the agent; absolute
	WaitSeconds *float64 `json:"waitSeconds"` // how long ADD waits for the agent in all; 0: one try

	// Set by the agent's last act, when the DaemonSet was deleted: nobody answers any more, and the last DEL removes these.
	Uninstalled bool     `json:"uninstalled"`
	Remove      []string `json:"remove"` // files and folders; absolute
}

// runtimeConfig is as runtimes write it.
type runtimeConfig struct {
	PortMappings []json.RawMessage `json:"portMappings"` // hostPorts; portmap's to read
}

// decode returns the network configuration; its errors name field, value and the way out.
func decode(stdin []byte) (*config, error) {
	if !utf8.Valid(stdin) {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration isn't UTF-8", inFile)
	}
	config := &config{Socket: defaultSocket, Deferred: defaultDeferred}
	var mistyped *json.UnmarshalTypeError
	if err := json.Unmarshal(stdin, config); errors.As(err, &mistyped) {
		return nil, invalid(mistyped.Field, "is of type "+mistyped.Value, "it must be of type "+words[mistyped.Type.Kind().String()])
	} else if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration isn't JSON: "+err.Error(), inFile)
	}
	return config, config.validate()
}

// words are JSON's names of the types that the fields of config have.
var words = map[string]string{"string": "string", "float64": "number", "map": "object", "struct": "object", "bool": "boolean", "slice": "list"}

func (c *config) validate() error {
	for field, path := range map[string]string{"socket": c.Socket, "deferred": c.Deferred} {
		if !filepath.IsAbs(path) {
			return invalid(field, fmt.Sprintf("is %q", path), "it must be an absolute path; leave it out for the default")
		}
	}
	if len(c.Socket) > longestSocket {
		return invalid("socket", fmt.Sprintf("is %q, %d bytes", c.Socket, len(c.Socket)), "the kernel takes 107 bytes at most")
	}
	if c.WaitSeconds != nil && (*c.WaitSeconds < 0 || *c.WaitSeconds > longestWait) {
		return invalid("waitSeconds", fmt.Sprintf("is %g", *c.WaitSeconds), "it must be from 0 (don't wait) to 3600 seconds")
	}
	return nil
}

// wait is how long ADD goes on trying.
func (c *config) wait() time.Duration {
	if c.WaitSeconds == nil {
		return defaultWait * time.Second
	}
	return time.Duration(*c.WaitSeconds * float64(time.Second))
}

// wasReady is the file that the agent makes beside its socket when it is first ready after a boot; a reboot empties /run.
func (c *config) wasReady() string {
	return filepath.Join(filepath.Dir(c.Socket), "was-ready")
}

func (c *config) agent() agent {
	return agent{socket: c.Socket}
}

func invalid(field, what, wayOut string) error {
	return types.NewError(types.ErrInvalidNetworkConfig,
		fmt.Sprintf("%s in the network configuration %s", field, what), wayOut+"; "+inFile)
}
