package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestShowReplacesOperandsAlone(t *testing.T) {
	redact := func(operand string) string {
		if strings.Contains(operand, "t") {
			return "[secret]"
		}
		return operand
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{Invalid("token", "must not be set beside token_file"), "token: must not be set beside token_file"},
		{Invalid("token", "%q is not a token (known: %s)", "t", "a, b"), `token: "[secret]" is not a token (known: a, b)`},
		{Invalid("max", "at most %d, %v", 5, Size(1<<20)), "max: at most 5, 1MiB"},
		{Invalid("urls", "%w", Errorf("%q is not a URL", "t")), `urls: "[secret]" is not a URL`},
		{Invalid("urls", "%w", errors.New("not ours")), "urls: [secret]"},
		{errors.Join(Invalid("a", "%q", "t"), Invalid("b", "%q", "u")), "a: \"[secret]\"\nb: \"u\""},
		{fmt.Errorf("ours: %w", Errorf("text")), "[secret]"},
	} {
		if got := Show(test.err, redact); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
		if got, want := Show(test.err, func(s string) string { return s }), test.err.Error(); got != want {
			t.Errorf("unchanged: %q, want %q", got, want)
		}
	}
}

func TestErrorsOfOptionsWrap(t *testing.T) {
	err := Invalid("path", "%w, and %w", fs.ErrNotExist, fs.ErrPermission)
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v does not wrap its operands", err)
	}
}
