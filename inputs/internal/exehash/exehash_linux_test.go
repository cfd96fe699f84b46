package exehash

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sockwatch/inputs/internal/procfs"
)

// start runs a copy of sleep until the test ends, and returns the copy's path.
func start(t *testing.T, change func(path string)) (Process, string) {
	t.Helper()
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, text, 0o700); err != nil {
		t.Fatal(err)
	}
	change(path)
	cmd := exec.Command(path, "600")
	cmd.Args[0] = "sleep" // for a multi-call binary
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	st, err := procfs.ParseStat(stat)
	if err != nil {
		t.Fatal(err)
	}
	return Process{cmd.Process.Pid, st.Start, path}, path
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// update calls Update until a process has a sum, for at most a minute.
func update(t *testing.T, s *Sums, p Process) string {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for s.Sum(p) == "" && time.Now().Before(deadline) {
		s.Update(t.Context(), map[Process]bool{p: true}, time.Now())
	}
	return s.Sum(p)
}

func TestSumIsThatOfTheProgramThatRuns(t *testing.T) {
	s := New("/proc", time.Hour)
	defer s.Close()
	p, path := start(t, func(string) {})
	want := sumOf(t, path)
	if err := os.Remove(path); err != nil { // the path is then free for another file
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := update(t, s, p); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLargeProgramsAreNotRead(t *testing.T) {
	s := New("/proc", time.Hour)
	defer s.Close()
	p, _ := start(t, func(path string) {
		if err := os.Truncate(path, MaxSize+1); err != nil {
			t.Fatal(err)
		}
	})
	if sum, err := s.read(t.Context(), p); sum != "" || err != nil {
		t.Errorf("%q, %v", sum, err)
	}
}

func TestNoSumOfAnotherProcessWithThePID(t *testing.T) {
	s := New("/proc", time.Hour)
	defer s.Close()
	p, _ := start(t, func(string) {})
	p.Start++
	if sum, err := s.read(t.Context(), p); sum != "" || err != procfs.ErrExited {
		t.Errorf("%q, %v", sum, err)
	}
}
