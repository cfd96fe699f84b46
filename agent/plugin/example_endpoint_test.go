package plugin_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// names is an endpoint that shows the series of all inputs, one per line.
type names struct {
	env      plugin.Env
	listener net.Listener
}

// Listen binds. An error here keeps the program from starting.
func (n *names) Listen(ctx context.Context) (err error) {
	n.listener, err = n.env.Listen(ctx, "tcp", "127.0.0.1:0")
	return err
}

// Serve answers from the latest batches until its context ends.
func (n *names) Serve(ctx context.Context, board plugin.Board) error {
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, batch := range board.Latest() {
			for _, point := range batch.Points {
				fmt.Fprintln(w, point.Series())
			}
		}
	})}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(n.listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// exampleBoard stands for the agent. Only Latest is used here.
type exampleBoard struct{ plugin.Board }

func (exampleBoard) Latest() []*metric.Batch {
	return []*metric.Batch{{Points: []metric.Point{{Name: "tcp_listen", Tags: metric.NewTags("port", "80")}}}}
}

// An endpoint binds in Listen and answers in Serve, from batches that never change.
func ExampleEndpoint() {
	e := &names{env: plugin.Env{Listen: new(net.ListenConfig).Listen}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := e.Listen(ctx); err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- e.Serve(ctx, exampleBoard{}) }()

	response, err := http.Get("http://" + e.listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	fmt.Print(string(page), err, "\n")

	cancel()
	fmt.Println("Serve:", <-served)
	// Output:
	// tcp_listen{port="80"}
	// <nil>
	// Serve: <nil>
}
