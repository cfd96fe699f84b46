package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
)

// queueDir returns the directory of the output's queue, or "" for memory.
func queueDir(a *Agent, p *Push) string {
	state := a.Options.StateDirectory
	if state == "" || p.Options.Buffer == "memory" || p.Options.Buffer == "auto" && p.Plugin.MemoryOnly {
		return ""
	}
	return filepath.Join(state, p.Name)
}

// The files that an output keeps beside its queue.
const (
	deadLetterFile = ".rejected.jsonl"
	seriesFile     = ".series.json"
)

// stateFiles are the suffixes of the files that instances keep in the state directory. An alias
// must not contain one: the queue named after it would collide with such a file.
var stateFiles = []string{deadLetterFile, ".first_seen.json", ".history.jsonl", seriesFile, ".stored"}

// stateFile returns the path of a file of an output, or "" without a state directory.
func stateFile(a *Agent, p *Push, suffix string) string {
	if a.Options.StateDirectory == "" {
		return ""
	}
	return filepath.Join(a.Options.StateDirectory, p.Name+suffix)
}

// makeStateDirectory creates the state directory if it does not exist, and checks that
// this user or root owns it (see buffer.MakeDirectory). It gives up when ctx is done.
func makeStateDirectory(ctx context.Context, c *calls.Pending, path string) error {
	if path == "" {
		return nil
	}
	var err error
	if !c.Within(ctx, "creating the state directory", func() { err = buffer.MakeDirectory(path) }) {
		return fmt.Errorf("agent.state_directory: %q: %w", path, calls.ErrDiskHangs)
	}
	if err != nil {
		return fmt.Errorf("agent.state_directory: %w", err)
	}
	return nil
}

// reportBacklogs logs the queues on disk that no configured output drains.
func reportBacklogs(a *Agent) {
	if a.Options.StateDirectory == "" {
		return
	}
	used := map[string]bool{}
	for _, p := range a.Push {
		used[queueDir(a, p)] = true
	}
	entries, err := os.ReadDir(a.Options.StateDirectory)
	if err != nil {
		a.Log.Warn("cannot look for queues without an output", "error", err)
	}
	for _, e := range entries {
		dir := filepath.Join(a.Options.StateDirectory, e.Name())
		if !e.IsDir() || used[dir] {
			continue
		}
		points, bytes, err := buffer.Backlog(dir)
		if err != nil {
			a.Log.Warn("cannot read a queue without an output", "error", err)
		} else if points > 0 {
			a.Log.Warn("queue without an output, its points wait for an output of that name", "queue", dir, "points", points, "bytes", bytes)
		}
	}
}
