package dirent

import (
	"encoding/binary"
	"testing"
)

func TestNumber(t *testing.T) {
	tests := []struct {
		name string
		want int
		ok   bool
	}{
		{name: "0", want: 0, ok: true},
		{name: "1", want: 1, ok: true},
		{name: "4194304", want: 4194304, ok: true},
		{name: "2147483629", want: 2147483629, ok: true},
		{name: "2147483648"},
		{name: "99999999999999999999"},
		{name: "self"},
		{name: "1a"},
		{name: "-1"},
		{name: ""},
	}
	for _, tt := range tests {
		if got, ok := Number([]byte(tt.name)); got != tt.want || ok != tt.ok {
			t.Errorf("%q: %d, %v, want %d, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

// entry returns an entry as the kernel writes it.
func entry(name string) []byte {
	b := make([]byte, (19+len(name)+1+7)&^7)
	binary.NativeEndian.PutUint16(b[16:], uint16(len(b)))
	copy(b[19:], name)
	return b
}

func TestNext(t *testing.T) {
	b := append(entry("."), entry("1045")...)
	var got []string
	for name, rest := Next(b); len(name) > 0; name, rest = Next(rest) {
		got = append(got, string(name))
	}
	if len(got) != 2 || got[0] != "." || got[1] != "1045" {
		t.Errorf("%q", got)
	}
}

// The loop ends, and every name is part of the buffer.
func FuzzNext(f *testing.F) {
	f.Add(append(entry("1"), entry("self")...))
	f.Add(entry("a")[:10])
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for name, rest := Next(b); len(name) > 0; name, rest = Next(rest) {
			if n += len(name); n > len(b) || len(rest) >= len(b) {
				t.Fatalf("entries without end in %q", b)
			}
			if number, ok := Number(name); ok && number < 0 {
				t.Errorf("%q is %d", name, number)
			}
		}
	})
}
