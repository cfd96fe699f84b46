package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Telegraf's other programs run as the same user, and must not be able to trace this one
// and use its capabilities. The files of /proc/PID belong to root if the process is not
// dumpable: proc(5).
func TestExecdCannotBeTracedByItsUser(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "execd") // the directories above t.TempDir belong to root
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "sockwatch")
	text, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, dir, "s.toml", "[[inputs.tcp_listen]]\n")
	if err := os.Chmod(config, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "execd", "--config", config)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_BE=sockwatch")
	log := &textBuffer{}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH},
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot start a program of another user with capabilities: %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	eventually(t, "its first line", func() bool { return strings.Contains(log.String(), "I! gathering") })
	info, err := os.Stat("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("/proc/PID/environ belongs to %d, want root", uid)
	}
	io.WriteString(stdin, "\n")
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, log)
	}
}
