//go:build !unix

package file

import "io/fs"

// There are no FIFOs, and symbolic links are detected only by the check before opening.
const noFollow, nonBlock, noTerminal = 0, 0, 0

var errNoReader = fs.ErrInvalid
