//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package buffer

import (
	"errors"
	"os"
)

func lockable() error {
	return errors.New(`queues on disk need flock, which this system lacks: set buffer = "memory"`)
}

func lockFile(*os.File) error { return lockable() }
