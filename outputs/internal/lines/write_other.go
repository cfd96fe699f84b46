//go:build !unix

package lines

import "os"

// Write writes b to f.
func Write(f *os.File, b []byte) (written int, err error) { return f.Write(b) }
