//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package buffer

import "errors"

var errNoQueues = errors.New(`queues on disk need flock, which this system does not have: set buffer = "memory"`)

func makeFolder(string) (folder, error) { return nil, errNoQueues }

func openFolder(string) (folder, error) { return nil, errNoQueues }
