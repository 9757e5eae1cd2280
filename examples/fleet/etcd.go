package main

import (
	"context"
	"fmt"
	"net"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd is an etcd of one member on this machine, until ctx ends.
func runEtcd(ctx context.Context, dir, client, peer string) error {
	c := embed.NewConfig()
	c.Dir, c.LogLevel = dir, "fatal" // it would log its own end as errors
	clientURL, peerURL := url.URL{Scheme: "http", Host: client}, url.URL{Scheme: "http", Host: peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{clientURL}, []url.URL{clientURL}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peerURL}, []url.URL{peerURL}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	}
	fmt.Printf("listening on %s\n", client)
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	}
}

// freeAddress is an address of this machine's that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
