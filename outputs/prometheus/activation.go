package prometheus

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// passedFiles returns the sockets that systemd has passed to this process. They stay open
// for as long as the process lives, because a reload needs them again.
var passedFiles = sync.OnceValue(func() []*os.File { return activation.Files(false) })

// passedListeners returns duplicates of the sockets with a name, or of all if name is "".
func passedListeners(files []*os.File, name string) ([]net.Listener, error) {
	if len(files) == 0 {
		return nil, errors.New("listen: systemd has passed no socket to this process")
	}
	var names []string
	var passed []net.Listener
	for _, f := range files {
		names = append(names, f.Name())
		if name != "" && f.Name() != name {
			continue
		}
		l, err := net.FileListener(f)
		if err != nil {
			return passed, fmt.Errorf("listen: socket %q from systemd: %w", f.Name(), err)
		}
		passed = append(passed, l)
	}
	if len(passed) == 0 {
		return nil, fmt.Errorf("listen: systemd has passed no socket named %q, only %q", name, names)
	}
	return passed, nil
}
