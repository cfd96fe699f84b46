package prometheus

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstPassed is the first descriptor that systemd passes, see sd_listen_fds(3).
const firstPassed = 3

// passedListeners returns the sockets that systemd has passed, of a name all that
// have it. They are duplicates: those of systemd stay open for the next reload.
func passedListeners(name string) ([]net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("listen: systemd has passed no socket to this process (LISTEN_PID is %q)", os.Getenv("LISTEN_PID"))
	}
	n, err := strconv.ParseUint(os.Getenv("LISTEN_FDS"), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("listen: LISTEN_FDS: %w", err)
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var passed []net.Listener
	for i := range int(n) {
		if name != "" && (i >= len(names) || names[i] != name) {
			continue
		}
		l, err := passedListener(firstPassed + i)
		if err != nil {
			return passed, fmt.Errorf("listen: descriptor %d of systemd: %w", firstPassed+i, err)
		}
		passed = append(passed, l)
	}
	if len(passed) == 0 {
		return nil, fmt.Errorf("listen: systemd has passed no socket named %q (LISTEN_FDNAMES is %q)", name, os.Getenv("LISTEN_FDNAMES"))
	}
	return passed, nil
}

func passedListener(fd int) (net.Listener, error) {
	unix.CloseOnExec(fd)
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "systemd")
	defer f.Close()
	return net.FileListener(f)
}
