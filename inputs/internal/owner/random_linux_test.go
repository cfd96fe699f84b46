package owner

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
)

// A shell is a process that runs the lines that it is told.
type shell struct {
	cmd     *exec.Cmd
	in      io.Writer
	out     *bufio.Reader
	program string // its own copy
}

const shellLoop = `while read -r line; do eval "$line"; echo done; done`

// startShell starts a shell that inherits the files from fd 3 on.
func startShell(t *testing.T, program string, files []*os.File) *shell {
	t.Helper()
	text, err := os.ReadFile("/bin/sh")
	if err == nil {
		err = os.WriteFile(program, text, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{cmd: exec.Command(program, "-c", shellLoop), program: program}
	s.cmd.ExtraFiles = files
	in, errIn := s.cmd.StdinPipe()
	out, errOut := s.cmd.StdoutPipe()
	for _, err := range []error{errIn, errOut, s.cmd.Start()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.in, s.out = in, bufio.NewReader(out)
	t.Cleanup(func() { end(s.cmd) })
	return s
}

// run runs a line and waits for its end.
func (s *shell) run(t *testing.T, line string) {
	t.Helper()
	fmt.Fprintln(s.in, line)
	if got, err := s.out.ReadString('\n'); got != "done\n" {
		t.Fatalf("%s: %q, %v", line, got, err)
	}
}

// cgroups creates two cgroups in each hierarchy that has units, and returns their files
// cgroup.procs.
func cgroups(t *testing.T) (files []string) {
	t.Helper()
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		if _, err := os.Stat(hierarchy + "/cgroup.procs"); err != nil {
			continue
		}
		for _, unit := range []string{"a", "b"} {
			dir := fmt.Sprintf("%s/sockwatch-test-%d-%s.service", hierarchy, os.Getpid(), unit)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Logf("without cgroups: %v", err)
				return nil
			}
			t.Cleanup(func() {
				for deadline := time.Now().Add(10 * time.Second); os.Remove(dir) != nil && time.Now().Before(deadline); {
					time.Sleep(time.Millisecond) // the last process in it is ending
				}
			})
			files = append(files, dir+"/cgroup.procs")
		}
	}
	return files
}

// known returns what a Finder knows about the holders of sockets.
func known(sockets []*Socket) (lines []string) {
	for i, s := range sockets {
		for _, h := range s.Holders {
			p := h.Process
			lines = append(lines, fmt.Sprintf("%d: %d %s %s %t %+v", i, p.PID, p.Comm, p.Exe, p.ExeDeleted, p.Cgroup))
		}
	}
	slices.Sort(lines)
	return lines
}

// TestChangesAreKnownWithinVerify lets processes change their names, programs and cgroups, close
// sockets and end, at random. After Options.Verify, a Finder that asks the kernel and one that
// reads procfs know the same as a new one.
func TestChangesAreKnownWithinVerify(t *testing.T) {
	groups := cgroups(t)
	for seed := range uint64(soak.Times(4)) {
		random := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		var files []*os.File
		var inodes []uint64
		for range 3 {
			file, s := listen(t)
			files, inodes = append(files, file), append(inodes, s.Inode)
		}
		var shells []*shell
		for i := range 4 {
			shells = append(shells, startShell(t, filepath.Join(dir, fmt.Sprint("sh", i)), files))
		}
		options := Options{Verify: time.Minute, Refresh: 5 * time.Minute, Members: func(string) []int { return nil }}
		follow := func(options Options) (*Finder, []*Socket) {
			f, sockets := newFinder(t, options), []*Socket(nil)
			for _, inode := range inodes {
				s := &Socket{Inode: inode}
				sockets = append(sockets, s)
				f.Add(s)
			}
			return f, sockets
		}
		byProcfs, ofProcfs := follow(options)
		options.Files = openFiles(t)
		byKernel, ofKernel := follow(options)
		options.Files = nil
		now := time.Now()
		var did []string
		for range 8 {
			for range random.IntN(4) {
				i := random.IntN(len(shells))
				did = append(did, fmt.Sprintf("%d: %s", i, change(t, random, shells[i], groups)))
			}
			for range 6 {
				now = now.Add(10 * time.Second)
				byProcfs.Update(t.Context(), now)
				byKernel.Update(t.Context(), now)
			}
			fresh, ofFresh := follow(options)
			fresh.Update(t.Context(), now)
			for name, sockets := range map[string][]*Socket{"procfs": ofProcfs, "kernel": ofKernel} {
				if diff := cmp.Diff(known(ofFresh), known(sockets)); diff != "" {
					t.Fatalf("seed %d, by %s, after\n%s\n(-new Finder +this):\n%s", seed, name, strings.Join(did, "\n"), diff)
				}
			}
		}
		if byKernel.options.Files == nil {
			t.Fatal("the kernel is no longer asked")
		}
		for _, s := range shells {
			end(s.cmd)
		}
	}
}

// change makes a random change to a shell's process, and says which.
func change(t *testing.T, random *rand.Rand, s *shell, groups []string) (line string) {
	switch n := random.IntN(10); {
	case n < 2:
		line = fmt.Sprintf("echo name%d > /proc/$$/comm", random.IntN(100))
	case n < 4 && len(groups) > 0:
		line = "echo $$ > " + groups[random.IntN(len(groups))]
	case n < 6:
		line = fmt.Sprintf("exec %d<&-", 3+random.IntN(3))
	case n < 7: // another program that runs lines
		line = fmt.Sprintf("exec /bin/sh -c 'echo done; %s'", shellLoop)
	case n < 8:
		err := os.Rename(s.program, s.program+"x")
		s.program += "x"
		return fmt.Sprint("rename program ", err)
	case n < 9:
		return fmt.Sprint("remove program ", os.Remove(s.program))
	default:
		return "nothing"
	}
	s.run(t, line)
	return line
}
