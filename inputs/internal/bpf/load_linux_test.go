//go:build amd64 || arm64

package bpf

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"
	"sockwatch/inputs/internal/synthetic"
	"sockwatch/inputs/internal/testchild"
)

func TestMain(m *testing.M) {
	synthetic.Main()
	testchild.Main((*task).perform)
	flag.Parse()
	synthetic.Alone()
	os.Exit(m.Run())
}

// A task is what a child process does.
type task struct {
	Capabilities []int                // it keeps no others, loads all programs, answers with the error, and waits
	Listen       []testchild.Listener // what it listens on; it answers with the ports
	Thread       bool                 // it listens in a thread with a table of files of its own
	OnLine       bool                 // for each line of input it listens and closes that often, and answers
}

func (t *task) perform() error {
	switch {
	case t.Capabilities != nil:
		return t.load()
	case t.OnLine:
		return t.listenOnLine()
	case t.Thread:
		done := make(chan error)
		go testchild.OnSpareThread(func() error {
			err := unix.Unshare(unix.CLONE_FILES)
			if err == nil {
				err = t.listen()
			}
			done <- err
			select {}
		})
		if err := <-done; err != nil {
			return err
		}
	default:
		if err := t.listen(); err != nil {
			return err
		}
	}
	testchild.Wait()
	return nil
}

func (t *task) listen() error {
	ports := []int{}
	for _, l := range t.Listen {
		_, port, err := l.Open()
		if err != nil {
			return err
		}
		ports = append(ports, port)
	}
	return testchild.Answer(ports)
}

func (t *task) listenOnLine() error {
	for lines := json.NewDecoder(os.Stdin); ; {
		var times int
		if err := lines.Decode(&times); err != nil {
			return nil
		}
		for range times {
			fd, _, err := t.Listen[0].Open()
			if err != nil {
				return err
			}
			unix.Close(fd)
		}
		if err := testchild.Answer(times); err != nil {
			return err
		}
	}
}

// load loads all programs with the capabilities of the task.
func (t *task) load() error {
	runtime.LockOSThread() // capabilities belong to the thread
	var set [2]unix.CapUserData
	for _, c := range t.Capabilities {
		set[c/32].Permitted |= 1 << (c % 32)
		set[c/32].Effective |= 1 << (c % 32)
	}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &set[0]); err != nil {
		return err
	}
	text := ""
	holders, err := OpenHolders(1)
	if err == nil {
		defer holders.Close()
		err = holders.Verify(context.Background(), nil, nil)
	}
	if err == nil {
		_, err = OpenChanges(1)
	}
	if err != nil {
		text = err.Error()
	}
	if err := testchild.Answer(text); err != nil {
		return err
	}
	testchild.Wait()
	return nil
}

// pidNamespace returns the inode number of the program's own pid namespace.
func pidNamespace(t testing.TB) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// skipWithout skips the test if the error says that BPF is not permitted or not supported.
func skipWithout(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) || errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, task task, attr *syscall.SysProcAttr, answer any) *testchild.Child {
	t.Helper()
	c, err := testchild.StartAndHear(task, nil, attr, answer)
	if errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	return c
}

// TestTwoCapabilitiesSuffice loads the programs with exactly CAP_BPF and CAP_PERFMON, and shows
// that an error names what is missing without one of them.
func TestTwoCapabilitiesSuffice(t *testing.T) {
	if testing.Short() {
		t.Skip("loads the programs several times")
	}
	h, err := OpenHolders(1)
	skipWithout(t, err)
	h.Close()
	const missing = "bpf: the capabilities CAP_BPF and CAP_PERFMON are both needed ("
	for _, test := range []struct {
		name         string
		capabilities []int
		want         string // how the error begins
	}{
		{name: "both", capabilities: []int{unix.CAP_BPF, unix.CAP_PERFMON}, want: ""},
		{name: "only CAP_BPF", capabilities: []int{unix.CAP_BPF}, want: missing},
		{name: "only CAP_PERFMON", capabilities: []int{unix.CAP_PERFMON}, want: missing},
		{name: "none", capabilities: []int{}, want: missing},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got string
			start(t, task{Capabilities: test.capabilities}, nil, &got)
			if !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("error %q, want %q ...", got, test.want)
			}
		})
	}
}

// TestNothingStaysAfterAKill loads the programs in a child, kills it, and finds none of them
// in the kernel.
func TestNothingStaysAfterAKill(t *testing.T) {
	if testing.Short() {
		t.Skip("loads the programs several times")
	}
	h, err := OpenHolders(1)
	skipWithout(t, err)
	h.Close()
	if _, err := ebpf.ProgramGetNextID(0); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Skip(err)
	}
	var text string
	c := start(t, task{Capabilities: []int{unix.CAP_BPF, unix.CAP_PERFMON}}, nil, &text)
	if text != "" {
		t.Fatal(text)
	}
	loaded := programsOf(t, c.Process.Pid)
	if len(loaded) != 3 {
		t.Errorf("programs %v are loaded, want three", loaded)
	}
	c.End()
	// The kernel releases a program a little after its last user has gone.
	eventually(t, func() error {
		for _, id := range loaded {
			if p, err := ebpf.NewProgramFromID(id); !errors.Is(err, os.ErrNotExist) {
				p.Close()
				return fmt.Errorf("program %d is still loaded (%v)", id, err)
			}
		}
		return nil
	})
}

// programsOf returns the programs that a process has loaded.
func programsOf(t *testing.T, pid int) (ids []ebpf.ProgramID) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if !strings.Contains(string(text), "\nprog_type:") { // those of links name their program, too
			continue
		}
		for line := range strings.Lines(string(text)) {
			if id, ok := strings.CutPrefix(line, "prog_id:\t"); ok {
				n, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, ebpf.ProgramID(n))
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// TestRefusedProgramIsExplained shows the whole log of the verifier in the error.
func TestRefusedProgramIsExplained(t *testing.T) {
	h, err := OpenHolders(1)
	skipWithout(t, err)
	h.Close()
	refused := &ebpf.VerifierError{Cause: unix.EINVAL, Log: []string{"0: (b7) r0 = 0", "1: (85) call bad#99", "invalid func"}}
	got := explain(refused).Error()
	for _, line := range refused.Log {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not in %q", line, got)
		}
	}
}
