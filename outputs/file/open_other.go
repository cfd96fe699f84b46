//go:build !unix

package file

import "io/fs"

// Symbolic links are refused by looking first alone, and there are no FIFOs.
const noFollow, nonBlock, noTerminal = 0, 0, 0

var errNoReader = fs.ErrInvalid
