// Package synthetic makes synthetic hosts for tests and benchmarks: processes with open files,
// listening sockets and connections. Each process is another instance of the running program.
package synthetic

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Size is the number of processes of a host, and what each of them has open.
type Size struct {
	Processes   int
	Files       int
	Listeners   int
	Connections int // the process has both ends of each
}

// Standard returns the size for which figures are published: 1,000 listeners, about 100,000
// open files and 17,000 sockets.
func Standard() Size { return Size{Processes: 200, Files: 400, Listeners: 5, Connections: 40} }

// Flags defines flags for a size. Their defaults are the standard size.
func Flags() *Size {
	z := Standard()
	flag.IntVar(&z.Processes, "host.processes", z.Processes, "processes of the synthetic host")
	flag.IntVar(&z.Files, "host.files", z.Files, "open files of each of them")
	flag.IntVar(&z.Listeners, "host.listeners", z.Listeners, "listening sockets of each of them")
	flag.IntVar(&z.Connections, "host.connections", z.Connections, "connections of each of them, both ends its own")
	return &z
}

const envSize = "SOCKWATCH_SYNTHETIC_SIZE"

// Main must be the first call in main or TestMain. If this program was started as a process of
// a synthetic host, Main runs that process and does not return.
func Main() {
	text := os.Getenv(envSize)
	if text == "" {
		return
	}
	var z Size
	_, err := fmt.Sscan(text, &z.Files, &z.Listeners, &z.Connections)
	if err == nil {
		err = z.play()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// play opens everything in the size, prints "ready", and waits for the end of standard input.
func (z *Size) play() error {
	var open []any // keeps everything reachable, and so open
	for range z.Files {
		f, err := os.Open("/dev/null")
		if err != nil {
			return err
		}
		open = append(open, f)
	}
	addresses := []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "127.0.0.2:0"}
	var first net.Listener
	for i := range z.Listeners {
		l, err := net.Listen("tcp", addresses[i%len(addresses)])
		if err != nil {
			return err
		}
		open = append(open, l)
		if first == nil {
			first = l
		}
	}
	for range z.Connections {
		client, err := net.Dial("tcp", first.Addr().String())
		if err != nil {
			return err
		}
		server, err := first.Accept()
		if err != nil {
			return err
		}
		open = append(open, client, server)
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(open)
	return err
}

// A Host is a running synthetic host.
type Host struct {
	mu        sync.Mutex
	processes []*exec.Cmd
}

// Start starts a host, by running this program again for each process.
func Start(z Size) (*Host, error) {
	if z.Listeners == 0 && z.Connections > 0 {
		return nil, errors.New("connections without a listener")
	}
	h := &Host{}
	var starting sync.WaitGroup
	errs := make(chan error, z.Processes)
	slots := make(chan struct{}, 8)
	for range z.Processes {
		starting.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := h.start(z); err != nil {
				errs <- err
			}
		})
	}
	starting.Wait()
	close(errs)
	if err := <-errs; err != nil {
		h.Stop()
		return nil, fmt.Errorf("start a synthetic host: %w", err)
	}
	return h, nil
}

func (h *Host) start(z Size) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d", envSize, z.Files, z.Listeners, z.Connections), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.mu.Lock()
	h.processes = append(h.processes, cmd)
	h.mu.Unlock()
	answer := make([]byte, 256)
	n, err := out.Read(answer)
	if err == nil && string(answer[:n]) != "ready\n" {
		err = fmt.Errorf("a process says %q", answer[:n])
	}
	return err
}

// Stop ends the host's processes and waits until they are gone.
func (h *Host) Stop() {
	for _, cmd := range h.processes {
		cmd.Process.Kill()
	}
	for _, cmd := range h.processes {
		cmd.Wait()
	}
}

// EnvAlone is set in a program that Alone has started.
const EnvAlone = "SOCKWATCH_SYNTHETIC_ALONE"

// Alone runs this program again with the same arguments, in its own network, mount and pid
// namespaces, where it sees only what it starts itself. Then it exits with the same result.
// Alone returns in that second program, and if the program is not root.
func Alone() {
	if os.Geteuid() != 0 {
		return
	}
	err := error(nil)
	if os.Getenv(EnvAlone) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), EnvAlone+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		runtime.LockOSThread() // the signal comes at the end of this thread
		if err = cmd.Run(); err == nil {
			os.Exit(0)
		}
	} else if err = Settle(); err == nil {
		err = exec.Command("ip", "link", "set", "lo", "up").Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "in namespaces of its own:", err)
		os.Exit(1)
	}
}

// Settle prepares a new mount namespace: its mounts stay private, /run is empty, and /proc
// shows the pid namespace if the program is its pid 1.
func Settle() error {
	err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
	if err == nil {
		err = unix.Mount("tmpfs", "/run", "tmpfs", 0, "")
	}
	if err == nil && os.Getpid() == 1 {
		err = unix.Mount("proc", "/proc", "proc", 0, "")
	}
	return err
}

// CPU returns the user and system time used so far by this process, or by the children that it
// has waited for.
func CPU(children bool) time.Duration {
	who := unix.RUSAGE_SELF
	if children {
		who = unix.RUSAGE_CHILDREN
	}
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		panic(err) // the arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
