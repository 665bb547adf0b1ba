package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// portmap is the CNI project's plugin that serves hostPorts. Chained behind ours it would be a process for each pod, and few
// pods have hostPorts; so it is called here, for those alone, with what a runtime would give it.
const portmap = "portmap"

// The last version in which portmap is asked about a pod: Debian 12's knows no later one, and what it is told is the same.
const portmapVersion = "1.0.0"

// portMapped asks portmap for its part of ADD, CHECK or DEL; what the pod has got is in result, or it is known by the runtime.
func portMapped(command string, args *skel.CmdArgs, config *config, result types.Result) error {
	if len(config.RuntimeConfig.PortMappings) == 0 {
		return nil
	}
	path := findPortmap(args)
	if path == "" {
		fmt.Fprintf(os.Stderr, "tortie: %s of %s: its hostPorts are left as they are: no plugin portmap that can be executed is in %s;"+
			" put it there, and make the pod anew\n", command, quoted(args.Args), quoted(args.Path))
		return nil
	}
	version := min(config.CNIVersion, portmapVersion)
	given := map[string]any{"cniVersion": version, "name": config.Name, "type": portmap, "runtimeConfig": config.RuntimeConfig}
	if result == nil {
		previous, err := previous(config)
		if err != nil {
			return err
		}
		if previous == nil {
			return execute(path, command, given)
		}
		result = previous
	}
	as, err := result.GetAsVersion(version)
	if err != nil {
		return err
	}
	given["prevResult"] = as
	return execute(path, command, given)
}

// portmapToo asks portmap what concerns no pod: GC and STATUS. One that doesn't know them has nothing to say.
func portmapToo(command string, args *skel.CmdArgs, config *config) error {
	path := findPortmap(args)
	if path == "" {
		return nil
	}
	given := map[string]any{"cniVersion": config.CNIVersion, "name": config.Name, "type": portmap}
	if config.ValidAttachments != nil {
		given["cni.dev/valid-attachments"] = config.ValidAttachments
	}
	err := execute(path, command, given)
	var failure *types.Error
	if errors.As(err, &failure) &&
		(failure.Code == types.ErrIncompatibleCNIVersion || failure.Code == types.ErrInvalidEnvironmentVariables) {
		return nil
	}
	return err
}

// findPortmap returns its path, "" where there is none that can be executed.
func findPortmap(args *skel.CmdArgs) string {
	for _, folder := range filepath.SplitList(args.Path) {
		path := filepath.Join(folder, portmap)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	return ""
}

// execute runs portmap with our variables and another command; its result, which is the one that it got, is read by nobody.
// The CNI project's package invoke would bring OpenTelemetry along: 1 ms more of CPU for each pod.
func execute(path, command string, given map[string]any) error {
	text, err := json.Marshal(given)
	if err != nil {
		return err
	}
	process := exec.Command(path)
	process.Env = append(os.Environ(), "CNI_COMMAND="+command) // of two of a name the last one counts
	process.Stdin, process.Stderr = bytes.NewReader(text), os.Stderr
	said, err := process.Output()
	if err == nil {
		return nil
	}
	var failure types.Error
	if json.Unmarshal(said, &failure) != nil || failure.Code == 0 {
		return types.NewError(types.ErrInternal, "portmap, which serves hostPorts, failed: "+err.Error(), "it said "+quoted(string(said)))
	}
	return types.NewError(failure.Code, "portmap, which serves hostPorts: "+failure.Msg, failure.Details)
}
