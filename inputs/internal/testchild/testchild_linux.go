// Package testchild runs a test program again as a child process with a task of its own:
// the processes, sockets and namespaces in these tests are real.
package testchild

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const envTask = "SOCKWATCH_TEST_TASK"

// Main performs the task of a child, and ends the process with it. In a process that is
// not a child it returns. TestMain calls it before anything else.
func Main[Task any](perform func(*Task) error) {
	text, ok := os.LookupEnv(envTask)
	if !ok {
		return
	}
	var task Task
	err := json.Unmarshal([]byte(text), &task)
	if err == nil {
		err = perform(&task)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Answer writes an answer to the process that started this one.
func Answer(answer any) error { return json.NewEncoder(os.Stdout).Encode(answer) }

// Wait returns when the process that started this one lets it end.
func Wait() { io.Copy(io.Discard, os.Stdin) }

// A Child is a process that performs a task. It leads a process group, so that its own
// children end with it.
type Child struct {
	*exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

// Start starts a child. It inherits files from descriptor 3 on. Attr may be nil.
func Start(task any, files []*os.File, attr *syscall.SysProcAttr) (*Child, error) {
	text, err := json.Marshal(task)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envTask+"="+string(text))
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if attr != nil {
		*cmd.SysProcAttr = *attr
	}
	cmd.SysProcAttr.Setpgid = true
	c := &Child{Cmd: cmd}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// StartAndHear starts a child and waits for its first answer.
func StartAndHear(task any, files []*os.File, attr *syscall.SysProcAttr, answer any) (*Child, error) {
	c, err := Start(task, files, attr)
	if err != nil {
		return nil, err
	}
	if err := c.Hear(answer); err != nil {
		c.End()
		return nil, err
	}
	return c, nil
}

// Tell writes a value to the child's standard input as JSON.
func (c *Child) Tell(value any) error { return json.NewEncoder(c.in).Encode(value) }

// Hear reads the child's next answer: one line of JSON. A child that does not answer
// within a minute is killed.
func (c *Child) Hear(answer any) error {
	deadline := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
	defer deadline.Stop()
	var line []byte
	for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; line = append(line, b...) {
		if _, err := io.ReadFull(c.out, b); err != nil {
			return fmt.Errorf("the child says %q: %w", line, err)
		}
	}
	if err := json.Unmarshal(line, answer); err != nil {
		return fmt.Errorf("the child says %q: %w", line, err)
	}
	return nil
}

// End ends the child with its own children, and waits until it has ended.
func (c *Child) End() { End(c.Cmd) }

// End ends a process, with its group if it leads one, and waits until it has ended.
func End(cmd *exec.Cmd) {
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Process.Kill()
	cmd.Wait()
}
