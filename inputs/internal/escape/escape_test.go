package escape

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// Hostile names that a process can give itself.
var hostile = []string{
	"", "nginx", "a\nb c=1 2", ") R 1 1", "\xff\xfe", "caf\xc3\xa9", "fifteen-bytes-\xc3", `a\nb`, `\x0a`, "\x0a",
	"\u202eevil", "tab\t", "\x7f", "\u200b", "日本語日本語"[:15], "\ufffd", "a b", "\x00",
}

func TestName(t *testing.T) {
	for name, want := range map[string]string{
		"nginx": "nginx", "a\nb c=1 2": `a\x0ab c=1 2`, "\xff": `\xff`, `a\b`: `a\x5cb`, "café": "café",
		"fifteen-bytes-\xc3": `fifteen-bytes-\xc3`, "\u202e": `\xe2\x80\xae`, "\u00a0": `\xc2\xa0`,
	} {
		if got := Name([]byte(name)); got != want {
			t.Errorf("Name(%q) = %q, expected %q", name, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit int
		want  string
	}{
		{"short", 10, "short"}, {"exactly", 7, "exactly"}, {"a\nb", 4, "a"}, {"a\nb", 5, `a\x0a`},
		{"aéé", 4, "aé"}, {"aé"[:2], 9, "a"}, {"", 3, ""},
	} {
		if got := Cut([]byte(test.name), test.limit); got != test.want {
			t.Errorf("Cut(%q, %d) = %q, expected %q", test.name, test.limit, got, test.want)
		}
	}
}

// unescape reverses Name, which must be possible.
func unescape(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
		if err != nil || s[i+1] != 'x' {
			t.Fatalf("%q is not an escape", s[i:])
		}
		b.WriteByte(byte(n))
		i += 3
	}
	return b.String()
}

// FuzzName: every name can be restored (so two never become equal), and the result is
// one line of printable UTF-8.
func FuzzName(f *testing.F) {
	for _, name := range hostile {
		f.Add([]byte(name), 8)
	}
	f.Fuzz(func(t *testing.T, name []byte, limit int) {
		shown := Name(name)
		if back := unescape(t, shown); back != string(name) {
			t.Errorf("%q is shown as %q, which is %q", name, shown, back)
		}
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", name, shown)
		}
		limit %= 300
		cut := Cut(name, limit)
		if len(cut) > max(limit, 0) || !strings.HasPrefix(shown, cut) || !utf8.ValidString(cut) {
			t.Errorf("%q cut at %d is %q", name, limit, cut)
		}
		unescape(t, cut)
	})
}
