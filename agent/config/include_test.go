package config_test

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent"
	"sockwatch/agent/config"
)

// loadWith loads a configuration, s.toml, on a host with these files. A file whose text
// is "unreadable" cannot be read.
func loadWith(text string, files, env map[string]string) (*agent.Agent, error) {
	host := fakeHost(env)
	host.Glob = func(pattern string) ([]string, error) {
		var paths []string
		for _, name := range slices.Sorted(maps.Keys(files)) {
			matches, err := path.Match(pattern, name)
			if err != nil {
				return nil, err
			}
			if matches {
				paths = append(paths, name)
			}
		}
		return paths, nil
	}
	host.ReadFile = func(name string) (config.File, error) {
		text, ok := files[name]
		switch {
		case !ok:
			return config.File{}, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		case text == "unreadable":
			return config.File{}, errors.New("not a regular file")
		}
		return config.File{Text: text}, nil
	}
	return config.Load([]config.File{{Name: "s.toml", Text: text}}, fakePlugins(), host)
}

func TestIncludedTablesFollowThoseOfTheConfiguration(t *testing.T) {
	a, err := loadWith(whole(`[[inputs.tcp_listen]]
expect_file = ["/e/*.toml", "/none/*.toml", "/e/b.toml", "/x"]
[[inputs.tcp_listen.expect]]
name = "own"
port = 1
`), map[string]string{
		"/e/b.toml": "[[expect]]\nname = 'b'\nport = 3\n[[forbid]]\nname = 'f'\n[[expect]]\nname = '${B}'\nport = 4\nmin = 2",
		"/e/a.toml": "[[expect]]\nname = 'a'\nport = 2",
		"/e/c.txt":  "not read",
		"/x":        "# nothing yet",
	}, map[string]string{"B": "from ${HOME}"})
	if err != nil {
		t.Fatal(err)
	}
	got := a.Inputs[0].Input.(fake).options.(listenOptions)
	want := []expectOptions{
		{Name: "own", Port: 1, Min: 1}, {Name: "a", Port: 2, Min: 1}, {Name: "b", Port: 3, Min: 1},
		{Name: "from ${HOME}", Port: 4, Min: 2},
	}
	if diff := cmp.Diff(want, got.Expect); diff != "" {
		t.Errorf("expect (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]expectOptions{{Name: "f", Min: 1}}, got.Forbid); diff != "" {
		t.Errorf("forbid (-want +got):\n%s", diff)
	}
}

func TestErrorsOfIncludedFilesHaveTheirLines(t *testing.T) {
	_, err := loadWith(whole(`[[inputs.tcp_listen]]
max_listeners = 0
expect_file = [
  "/e/*.toml",
  "/missing",
  "relative",
  "/e/fifo",
  "/dir-${SECRET}/x",
  "/[",
]
[[inputs.tcp_listen.expect]]
name = "own"
`), map[string]string{
		"/e/a.toml": "[[expect]]\nname = 'a'\nport = 'x'\n[[expect]]\nport = 1\n\n[expect.labels]\nname = '${OTHER}'\n",
		"/e/b.toml": "[[expect]]\nname = 'b'\nprot = 1\n[[expct]]\n",
		"/e/c.toml": "[[inputs.tcp_listen.expect]]\nname = 'c'\n",
		"/e/d.toml": "\n[[expect]\n",
		"/e/e.toml": " ",
		"/e/f.toml": "[expect]\nname = 'f'\n",
		"/e/fifo":   "unreadable",
	}, map[string]string{"SECRET": "hunter2", "OTHER": "hunter3"})
	want := `s.toml:2: inputs.tcp_listen: max_listeners: must be more than 0
s.toml:5: inputs.tcp_listen: expect_file: "/missing": file does not exist
s.toml:6: inputs.tcp_listen: expect_file: "relative" is not an absolute path
s.toml:7: inputs.tcp_listen: expect_file: "/e/fifo": not a regular file
s.toml:8: inputs.tcp_listen: expect_file: "/dir-${SECRET}/x": file does not exist
s.toml:9: inputs.tcp_listen: expect_file: "/[": syntax error in pattern
s.toml:11: inputs.tcp_listen.expect: has no criterion
/e/a.toml:3: expect: port: "x" is not an integer
/e/a.toml:4: expect: name: is missing
/e/a.toml:8: expect: labels.name: is a tag already: "${OTHER}"
/e/b.toml:3: expect: unknown option "prot" (did you mean "port"?)
/e/b.toml:4: unknown table "expct" (did you mean "expect"? this file holds [[expect]] and [[forbid]])
/e/c.toml:1: unknown table "inputs" (this file holds [[expect]] and [[forbid]])
/e/d.toml:2: expected end of table array name delimiter ']', but got '\n' instead
/e/e.toml: the file is empty
/e/f.toml:1: expect: must be a list of tables: write [[expect]]`
	if err == nil {
		t.Fatal("loaded")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

func TestRulesAtTheTopLevelOfAConfigurationAreExplained(t *testing.T) {
	_, err := loadWith(whole("[[expect]]\nname = 'a'\n"), nil, nil)
	want := `s.toml:1: unknown table "expect" (write [[inputs.tcp_listen.expect]], or name this file in expect_file)`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Two instances may include one file; its errors are reported once.
func TestErrorsOfAFileIncludedTwiceAreReportedOnce(t *testing.T) {
	_, err := loadWith(whole(`[[inputs.tcp_listen]]
alias = "a"
expect_file = "/x"
[[inputs.tcp_listen]]
alias = "b"
expect_file = "/x"
`), map[string]string{"/x": "[[expect]]\nname = 'a'\n"}, nil)
	want := `/x:1: expect: has no criterion`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// FuzzIncludedFile: for any file, Load returns an agent, or errors with lines of
// the file.
func FuzzIncludedFile(f *testing.F) {
	for _, seed := range []string{
		"[[expect]]\nname = 'a'\nport = 1\n[expect.labels]\na = 'b'", "[[expect]", "expect = [1]", "expect = [{name = 'a'}]", "expect = {}",
		"[[forbid]]\nlabels = 1", "[[expect]]\n[[expect.expect]]", "a.b.c = 1", "[[expect]]\nname = '${A}'",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "unreadable" {
			return
		}
		a, err := loadWith(whole("[[inputs.tcp_listen]]\nexpect_file = '/x'\n"), map[string]string{"/x": text}, nil)
		if (a == nil) != (err != nil) {
			t.Fatalf("%v and %v", a, err)
		}
		var errs config.Errors
		if err != nil && !errors.As(err, &errs) {
			t.Fatalf("%T: %v", err, err)
		}
		for _, e := range errs {
			if e.File != "/x" {
				t.Errorf("not of the file: %v", e)
			}
		}
	})
}
