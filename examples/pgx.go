// pgx: a pool that throws away what dies and checks what is idle.
//
// Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v4/pgxpool"
)

// For one order, a failover included.
const patience = 60 * time.Second

func save(pool *pgxpool.Pool, order int64) error {
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const insert = "INSERT INTO orders (client, id) VALUES ('pgx', $1) ON CONFLICT DO NOTHING"
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		_, err := pool.Exec(limited, insert, order)
		if err == nil || limited.Err() != nil {
			return err
		}
		log.Printf("trying again: %v", err)
		if wait > 2*time.Second {
			wait = 2 * time.Second
		}
		time.Sleep(wait)
	}
}

func run() error {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	config.HealthCheckPeriod = 5 * time.Second
	config.MaxConnLifetime = 15 * time.Minute
	// pgpivot holds new connections while it fails over.
	config.ConnConfig.ConnectTimeout = 40 * time.Second
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		return err
	}
	defer pool.Close()
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		order, err := strconv.ParseInt(input.Text(), 10, 64)
		if err != nil {
			return err
		}
		if err := save(pool, order); err != nil {
			return err
		}
		fmt.Printf("saved %d\n", order)
	}
	rows, err := pool.Query(context.Background(), "SELECT id FROM orders WHERE client = 'pgx' ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	fmt.Print("read")
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		fmt.Printf(" %d", id)
	}
	fmt.Println()
	return rows.Err()
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
