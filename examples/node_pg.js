// node-postgres: a pool that throws away what dies. Without its 'error' handler, an idle connection that is cut would
// end the process.
//
// Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.
'use strict'
const readline = require('node:readline')
const { setTimeout: sleep } = require('node:timers/promises')
const { Pool } = require('pg')

const PATIENCE = 60_000 // milliseconds for one order, a failover included

const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: 4, connectionTimeoutMillis: 40_000 })
pool.on('error', (error) => console.error(`an idle connection is gone: ${error.message}`))

async function save(order) {
  const deadline = Date.now() + PATIENCE
  for (let wait = 100; ; wait = Math.min(wait * 2, 2000)) {
    try {
      await pool.query("INSERT INTO orders (client, id) VALUES ('node_pg', $1) ON CONFLICT DO NOTHING", [order])
      return
    } catch (error) {
      console.error(`trying again: ${error.message}`)
      if (Date.now() > deadline) throw error
      await sleep(wait)
    }
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await save(Number(line))
    console.log(`saved ${Number(line)}`)
  }
  const { rows } = await pool.query("SELECT id FROM orders WHERE client = 'node_pg' ORDER BY id")
  console.log(['read', ...rows.map((row) => row.id)].join(' '))
  await pool.end()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
