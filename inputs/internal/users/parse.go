package users

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"sockwatch/inputs/internal/escape"
)

const (
	maxFile = 16 << 20 // maximum size of /etc/passwd and of /etc/subuid
	maxLine = 32 << 10 // longer lines are skipped
	maxName = 256      // maximum length of a user's name: LOGIN_NAME_MAX
	noUID   = 1<<32 - 1
)

// parsePasswd returns the escaped names of the wanted uids from a file in the format of
// passwd(5). If a uid has several names, the first counts. Lines that are damaged, too long, or
// for NIS ("+name") are skipped.
func parsePasswd(r io.Reader, wanted map[uint32]bool) (map[uint32]string, error) {
	names := make(map[uint32]string)
	err := eachLine(r, func(line []byte) {
		name, rest, _ := bytes.Cut(line, []byte{':'})
		_, rest, _ = bytes.Cut(rest, []byte{':'})
		number, _, complete := bytes.Cut(rest, []byte{':'})
		uid, ok := parseUID(number)
		if !complete || !ok || !wanted[uid] || !isName(name) {
			return
		}
		if _, twice := names[uid]; !twice {
			names[uid] = escape.Name(name)
		}
	})
	return names, err
}

// A uidRange is a range of subordinate uids from /etc/subuid.
type uidRange struct {
	first, last uint32
	name        string // the escaped name of its user, or ""
	uid         uint32 // its user, if name is ""
}

// parseSubuid returns the ranges in a file in the format of subuid(5), sorted by their first
// uid. The user of a range is a name or a uid. Damaged lines are skipped.
func parseSubuid(r io.Reader) ([]uidRange, error) {
	var ranges []uidRange
	err := eachLine(r, func(line []byte) {
		user, rest, _ := bytes.Cut(line, []byte{':'})
		start, size, complete := bytes.Cut(rest, []byte{':'})
		first, ok := parseUID(start)
		count, err := strconv.ParseUint(string(size), 10, 33)
		if !complete || !ok || err != nil || count == 0 {
			return
		}
		r := uidRange{first: first, last: uint32(min(uint64(first)+count-1, noUID-1))}
		if uid, ok := parseUID(user); ok {
			r.uid = uid
		} else if isName(user) {
			r.name = escape.Name(user)
		} else {
			return
		}
		ranges = append(ranges, r)
	})
	slices.SortStableFunc(ranges, func(a, b uidRange) int { return cmp.Compare(a.first, b.first) })
	return ranges, err
}

// eachLine calls visit for each line of a file that is not empty or a comment, without its
// end.
func eachLine(r io.Reader, visit func(line []byte)) error {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	lines := bufio.NewReaderSize(limited, maxLine)
	skip := false
	for {
		line, err := lines.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !full && !errors.Is(err, io.EOF) {
			return err
		}
		if limited.N == 0 {
			return fmt.Errorf("larger than %d MiB", maxFile>>20)
		}
		if line = bytes.TrimSpace(line); !skip && !full && len(line) > 0 && line[0] != '#' {
			visit(line)
		}
		skip = full
		if err != nil && !full {
			return nil
		}
	}
}

// parseUID parses a uid that consists only of decimal digits.
func parseUID(s []byte) (uint32, bool) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	uid, err := strconv.ParseUint(string(s), 10, 32)
	return uint32(uid), err == nil && uid != noUID
}

func isName(name []byte) bool {
	return len(name) > 0 && len(name) <= maxName && name[0] != '+' && name[0] != '-'
}
