// Fleet runs several TLS servers behind one address. They share the keys of their session tickets through etcd, so a client
// resumes its session with whichever server it gets, and rotate them together. In etcd the keys are encrypted with FLEET_KEY.
// A server that loses etcd goes on with the keys it has.
//
//	go run .                              # all of it, an etcd of its own included
//	go run . -etcd 10.0.0.5:2379          # with an existing etcd; needs FLEET_KEY, which stays the same
//
// One process is the parent: it forwards connections and starts the others again when they end.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	var f fleet
	flag.StringVar(&f.address, "address", "127.0.0.1:8443", "where clients connect")
	flag.IntVar(&f.servers, "servers", 3, "how many servers")
	flag.StringVar(&f.server.etcd, "etcd", "", "an existing etcd; otherwise one is run")
	flag.DurationVar(&f.server.period, "period", 12*time.Hour, "how often new ticket keys come into use")

	// What the parent tells its children.
	role := flag.String("role", "parent", "parent, server or etcd")
	flag.StringVar(&f.server.name, "name", "", "the server's name")
	flag.StringVar(&f.server.cert, "cert", "", "the certificate, PEM")
	flag.StringVar(&f.server.key, "key", "", "its private key, PEM")
	dir := flag.String("dir", "", "etcd's directory")
	client := flag.String("client", "", "etcd's address for clients")
	peer := flag.String("peer", "", "etcd's address for peers")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch *role {
	case "parent":
		err = f.run(ctx)
	case "etcd":
		err = runEtcd(ctx, *dir, *client, *peer)
	case "server":
		var box *box
		if box, err = newBox(os.Getenv("FLEET_KEY")); err == nil {
			err = runServer(ctx, f.server, box, log.Printf)
		}
	default:
		err = fmt.Errorf("fleet: unknown role %q", *role)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// fleet is the parent's settings.
type fleet struct {
	address string
	servers int
	server  serverConfig
}

// run starts everything and keeps it running until ctx ends.
func (f *fleet) run(ctx context.Context) error {
	if f.servers < 1 || f.server.period < time.Second {
		return errors.New("fleet: at least one server, and a period of at least a second")
	}
	if os.Getenv("FLEET_KEY") == "" {
		if f.server.etcd != "" {
			return errors.New("fleet: -etcd needs a FLEET_KEY that stays the same, for example from: openssl rand -base64 32")
		}
		fmt.Println("FLEET_KEY is not set: made one for this run")
		os.Setenv("FLEET_KEY", base64.StdEncoding.EncodeToString(randomBytes(32)))
	}
	if _, err := newBox(os.Getenv("FLEET_KEY")); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	roots := filepath.Join(dir, "roots.pem")
	f.server.cert, f.server.key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := makeCertificate(roots, f.server.cert, f.server.key); err != nil {
		return err
	}
	fmt.Printf("roots in %s\n", roots)

	ctx, cancel := context.WithCancel(ctx)
	var children sync.WaitGroup
	defer children.Wait()
	defer cancel()
	if f.server.etcd == "" {
		if f.server.etcd, err = freeAddress(); err != nil {
			return err
		}
		peer, err := freeAddress()
		if err != nil {
			return err
		}
		ready := make(chan struct{}, 1)
		etcd := child{name: "etcd", secret: true, args: []string{"-role", "etcd", "-dir", filepath.Join(dir, "etcd"), "-client", f.server.etcd, "-peer", peer}}
		etcd.up = func(string) {
			select {
			case ready <- struct{}{}:
			default:
			}
		}
		children.Go(func() { etcd.keepRunning(ctx) })
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
	}

	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	forward := &forwarder{}
	for i := range f.servers {
		name := fmt.Sprintf("server-%d", i+1)
		server := child{name: name, up: forward.add, down: forward.remove, args: []string{
			"-role", "server", "-name", name, "-etcd", f.server.etcd, "-period", f.server.period.String(),
			"-cert", f.server.cert, "-key", f.server.key}}
		children.Go(func() { server.keepRunning(ctx) })
	}
	fmt.Printf("clients may connect to %v\n", listener.Addr())
	forward.serve(listener, log.Printf)
	return nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// child is another process of this program.
type child struct {
	name     string
	secret   bool // FLEET_KEY is kept from it
	args     []string
	up, down func(address string) // what it listens on, and that it no longer does
}

// keepRunning starts the process, and again whenever it ends, until ctx ends.
func (c *child) keepRunning(ctx context.Context) {
	for ctx.Err() == nil {
		if err := c.runOnce(ctx); ctx.Err() == nil {
			fmt.Printf("%s: ended: %v; starting it again\n", c.name, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *child) runOnce(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, c.args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if c.secret {
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "FLEET_KEY=") })
	}
	output, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Printf("%s: process %d\n", c.name, cmd.Process.Pid)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer io.Copy(io.Discard, output) // whatever comes, the child must not wait for us
		address := ""
		for lines := bufio.NewScanner(output); lines.Scan(); {
			line := lines.Text()
			if found, ok := strings.CutPrefix(line, "listening on "); ok && address == "" { // what comes later may quote a client
				address = found
				c.up(address)
			}
			fmt.Printf("%s: %s\n", c.name, line)
		}
		if c.down != nil && address != "" {
			c.down(address)
		}
	}()
	err = cmd.Wait()
	writer.Close()
	<-read
	return err
}
