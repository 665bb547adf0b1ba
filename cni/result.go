package main

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// convert returns the agent's result, which has the shape of CNI 1.0.0, in the version that the network configuration asks
// for, after the previous plugins' (the specification: what they made is passed through).
func convert(raw json.RawMessage, config *config) (types.Result, error) {
	var result *current.Result
	if err := json.Unmarshal(raw, &result); err != nil {
		return nil, misunderstood(raw, err.Error())
	}
	if result == nil {
		return nil, misunderstood(raw, "ADD needs a result")
	}
	result.CNIVersion = current.ImplementedSpecVersion
	previous, err := previous(config)
	if err != nil {
		return nil, err
	}
	if previous != nil {
		result = joined(previous, result)
	}
	return result.GetAsVersion(config.CNIVersion)
}

// previous returns what the plugins before this one made, nil when it is the first of its list.
func previous(config *config) (*current.Result, error) {
	conf := types.PluginConf{CNIVersion: config.CNIVersion, RawPrevResult: config.PrevResult}
	err := version.ParsePrevResult(&conf)
	if err == nil && conf.PrevResult == nil {
		return nil, nil
	}
	var result *current.Result
	if err == nil {
		result, err = current.NewResultFromResult(conf.PrevResult)
	}
	if err != nil {
		return nil, invalid("prevResult", "can't be read: "+err.Error(), "it must be the previous plugin's result")
	}
	return result, nil
}

// joined returns first and then second; addresses name their interface by its place in the list, so second's move.
func joined(first, second *current.Result) *current.Result {
	for _, address := range second.IPs {
		if address.Interface != nil {
			address.Interface = current.Int(*address.Interface + len(first.Interfaces))
		}
	}
	first.Interfaces = append(first.Interfaces, second.Interfaces...)
	first.IPs = append(first.IPs, second.IPs...)
	first.Routes = append(first.Routes, second.Routes...)
	if !second.DNS.IsEmpty() {
		first.DNS = second.DNS
	}
	return first
}
