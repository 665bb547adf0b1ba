package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
)

// queue is the folder where DELs wait for the agent, which plays them before it serves. One file each.
type queue struct{ folder string }

// put queues a request durably, then tries the agent once more: it may have come, and looked at the folder, in between.
// An agent that answers now has the last word, and nothing stays queued.
func (q queue) put(r request, again func() error) error {
	path := filepath.Join(q.folder, fileName(r))
	if err := q.write(path, r); err != nil {
		return types.NewError(types.ErrIOFailure, "Tortie's agent is away, and DEL couldn't be queued for it",
			fmt.Sprintf("%s; the runtime tries again; is the disk full, or %s not writable?", err, q.folder))
	}
	err := again()
	if isAway(err) {
		return nil
	}
	if gone := os.Remove(path); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "tortie: %s; the agent will do this DEL once more, which is harmless\n", gone)
	}
	return err
}

// fileName is the same for a repeated DEL, so that it is one file.
func fileName(r request) string {
	sum := sha256.Sum256([]byte(r.ContainerID + "/" + r.IfName))
	return fmt.Sprintf("%x.json", sum[:16])
}

// write returns when the file is on disk under its name, whole.
func (q queue) write(path string, r request) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := makeFolder(q.folder); err != nil {
		return err
	}
	partial, err := os.CreateTemp(q.folder, ".*.tmp")
	if err != nil {
		return err
	}
	err = errors.Join(writeAll(partial, text), partial.Close())
	if err == nil {
		err = os.Rename(partial.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(partial.Name()))
	}
	return syncFolder(q.folder)
}

func writeAll(file *os.File, text []byte) error {
	if _, err := file.Write(text); err != nil {
		return err
	}
	return file.Sync()
}

// makeFolder makes a folder and those above it, each durably.
func makeFolder(folder string) error {
	err := os.Mkdir(folder, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	parent := filepath.Dir(folder)
	if errors.Is(err, fs.ErrNotExist) && parent != folder {
		if err := makeFolder(parent); err != nil {
			return err
		}
		err = os.Mkdir(folder, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

func syncFolder(folder string) error {
	handle, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}
