// Command tortie is the CNI plugin that a container runtime executes for each pod.
//
// It decides nothing: it carries the request to the agent on this node and the agent's answer back. While the agent is away,
// ADD waits for it and DEL is queued on disk.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// supported are the versions of the CNI specification that a network configuration may ask for.
var supported = version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")

// plugin is one call of this program.
type plugin struct {
	version string // that its answer, also an error, is written in: the network configuration's, once it is known
	ours    bool   // whether skel is through with its checks, and what goes wrong is said by us or the agent
}

func main() {
	p := &plugin{version: version.Current()}
	if failure := p.run(); failure != nil {
		p.printError(failure)
		os.Exit(1)
	}
}

// run serves the command that the environment names; what goes wrong is returned for people to read.
func (p *plugin) run() (failure *types.Error) {
	defer func() {
		if cause := recover(); cause != nil {
			failure = types.NewError(types.ErrInternal, fmt.Sprintf("a mistake in this plugin: %v", cause), "please report it")
		}
	}()
	stdin, err := watchStdin()
	if err != nil {
		return types.NewError(types.ErrIOFailure, "no pipe for stdin: "+err.Error(), "does the runtime run out of open files?")
	}
	functions := skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}
	failure = skel.PluginMainFuncsWithError(functions, supported, "")
	if failure != nil && !p.ours {
		failure = explained(failure, stdin.read())
	}
	return failure
}

func (p *plugin) add(args *skel.CmdArgs) error {
	config, err := p.decode(args)
	if err != nil {
		return err
	}
	if err := notOurs(args); err != nil {
		return err
	}
	if config.Uninstalled {
		return uninstalled(types.ErrTryAgainLater)
	}
	until := time.Now().Add(config.wait())
	raw, err := config.agent().askUntil(newRequest("ADD", args), until)
	if err != nil {
		return err
	}
	result, err := convert(raw, config)
	if err != nil {
		return err
	}
	if err := portMapped("ADD", args, config, result); err != nil {
		return err
	}
	return result.Print()
}

// notOurs refuses a network namespace that is the host's: skel would do so only after the work is done.
func notOurs(args *skel.CmdArgs) error {
	if override := strings.ToUpper(args.NetnsOverride); override == "TRUE" || override == "1" {
		return nil
	}
	args.NetnsOverride = "TRUE"
	same, err := ns.CheckNetNS(args.Netns)
	if err != nil {
		return err
	}
	if same {
		return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS is the host's own network namespace",
			fmt.Sprintf("CNI_NETNS=%q; a pod needs a namespace of its own, one in its host's network needs no CNI", args.Netns))
	}
	return nil
}

func (p *plugin) del(args *skel.CmdArgs) error {
	args.NetnsOverride = "TRUE" // else skel fails a DEL that is done, if its namespace is ours; we enter none
	config, err := p.decode(args)
	if err != nil {
		return err
	}
	if err := portMapped("DEL", args, config, nil); err != nil {
		return err
	}
	if config.Uninstalled {
		return leave(args, config.Remove)
	}
	request, agent := newRequest("DEL", args), config.agent()
	if _, err = agent.ask(request, time.Now().Add(delAnswer)); !isAway(err) {
		return err
	}
	return queue{config.Deferred}.put(request, func() error {
		_, err := agent.ask(request, time.Now().Add(delAnswer))
		return err
	})
}

func (p *plugin) check(args *skel.CmdArgs) error {
	config, err := p.decode(args)
	if err != nil {
		return err
	}
	if _, err := config.agent().askUntil(newRequest("CHECK", args), time.Now().Add(checkWait)); err != nil {
		return err
	}
	return portMapped("CHECK", args, config, nil)
}

func (p *plugin) gc(args *skel.CmdArgs) error {
	config, err := p.decode(args)
	if err != nil {
		return err
	}
	if config.Uninstalled {
		return nil
	}
	ofPorts := portmapToo("GC", args, config) // whatever the agent says, as a runtime does
	_, err = config.agent().ask(newRequest("GC", args), time.Now().Add(gcAnswer))
	if isAway(err) {
		return tryLater("Tortie's agent on this node is away", err)
	}
	if err != nil {
		return err
	}
	return ofPorts
}

// status fails when the agent says so, or was never ready since boot: a runtime turns an error into a NotReady node, and its
// healthy pods leave their Services; an agent that is being upgraded is not worth that.
func (p *plugin) status(args *skel.CmdArgs) error {
	config, err := p.decode(args)
	if err != nil {
		return err
	}
	if config.Uninstalled {
		return uninstalled(types.ErrPluginNotAvailable)
	}
	_, err = config.agent().ask(newRequest("STATUS", args), time.Now().Add(statusAnswer))
	if err != nil && !isAway(err) {
		return err
	}
	if _, missing := os.Stat(config.wasReady()); err == nil || missing == nil {
		return portmapToo("STATUS", args, config)
	}
	return types.NewError(types.ErrPluginNotAvailable, "Tortie's agent was not ready yet since this node booted", whereToLook(err))
}

func (p *plugin) decode(args *skel.CmdArgs) (*config, error) {
	p.ours = true
	config, err := decode(args.StdinData)
	if err == nil {
		p.version = config.CNIVersion
	}
	return config, err
}

// printError writes the specification's error object on stdout, where the runtime reads it.
func (p *plugin) printError(failure *types.Error) {
	text, err := json.MarshalIndent(struct {
		CNIVersion string `json:"cniVersion"`
		*types.Error
	}{p.version, failure}, "", "    ")
	if err == nil {
		_, err = os.Stdout.Write(append(text, '\n'))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "tortie: %s (and this couldn't be written to stdout: %s)\n", failure, err)
	}
}
