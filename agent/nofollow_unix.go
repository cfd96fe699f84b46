//go:build unix

package agent

import "syscall"

// noFollow makes an open refuse a symbolic link at the end of the path.
const noFollow = syscall.O_NOFOLLOW
