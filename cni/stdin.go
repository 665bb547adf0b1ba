package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
)

// tee keeps what skel reads from stdin, so that an error can show it, and ends what has no end.
type tee struct {
	text bytes.Buffer
	done chan struct{} // closed when all is read
}

// watchStdin puts a pipe between stdin and skel, which reads os.Stdin to its end, or not at all.
func watchStdin() (*tee, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	t, stdin := &tee{done: make(chan struct{})}, os.Stdin
	os.Stdin = reader
	go func() {
		defer writer.Close()
		defer close(t.done)
		_, _ = io.Copy(io.MultiWriter(&t.text, writer), io.LimitReader(stdin, largest+1)) // an error is an end to skel, too
	}()
	return t, nil
}

// read returns what skel has read, nil if it didn't.
func (t *tee) read() []byte {
	select {
	case <-t.done:
		return t.text.Bytes()
	default:
		return nil
	}
}

// cniVersion returns that field's value as it stands in a network configuration, for people.
func cniVersion(stdin []byte) string {
	var conf struct {
		Version json.RawMessage `json:"cniVersion"`
	}
	if json.Unmarshal(stdin, &conf) != nil || conf.Version == nil {
		return "(missing)"
	}
	return string(conf.Version)
}
