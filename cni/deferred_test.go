package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// The first 32 hex digits of `printf c1/eth0 | sha256sum`.
const c1eth0 = "d72e032fedd94c16f31250b1845eb1ce.json"

func names(t *testing.T, folder string) string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return strings.Join(all, " ")
}

func TestADelIsQueuedUntilTheAgentHasTheLastWord(t *testing.T) {
	refused := types.NewError(107, "no", "")
	for _, row := range []struct {
		name         string
		again, wants error
		left         string
	}{
		{"still away", &away{"s", os.ErrNotExist}, nil, c1eth0},
		{"came and did it", nil, nil, ""},
		{"came and refused", refused, refused, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "a", "b")
			seen := ""
			err := queue{folder}.put(newRequest("DEL", someArgs), func() error { seen = names(t, folder); return row.again })
			if !errors.Is(err, row.wants) || seen != c1eth0 || names(t, folder) != row.left {
				t.Errorf("got %v; before the second try %q, after it %q", err, seen, names(t, folder))
			}
		})
	}
}

func TestARepeatedDelIsOneFile(t *testing.T) {
	folder := t.TempDir()
	stillAway := func() error { return &away{"s", os.ErrNotExist} }
	other := *someArgs
	other.IfName = "eth1"
	for _, request := range []request{newRequest("DEL", someArgs), newRequest("DEL", &other), newRequest("DEL", someArgs)} {
		if err := (queue{folder}).put(request, stillAway); err != nil {
			t.Fatal(err)
		}
	}
	if all := strings.Fields(names(t, folder)); len(all) != 2 {
		t.Errorf("got %q", all)
	}
	var queued request
	text, err := os.ReadFile(filepath.Join(folder, c1eth0))
	if err != nil || json.Unmarshal(text, &queued) != nil || queued.Command != "DEL" || queued.IfName != "eth0" {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestADelThatCannotBeQueuedFailsAndLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, c1eth0, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := queue{folder}.put(newRequest("DEL", someArgs), func() error { return nil })
	if codeOf(t, err) != types.ErrIOFailure || !strings.Contains(err.Error(), folder) {
		t.Errorf("got %v", err)
	}
	if names(t, folder) != c1eth0 {
		t.Errorf("left %q", names(t, folder))
	}
}

func TestAFolderThatCannotBeMadeFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := queue{filepath.Join(file, "deferred")}.put(newRequest("DEL", someArgs), func() error { return nil })
	if codeOf(t, err) != types.ErrIOFailure {
		t.Errorf("got %v", err)
	}
}
