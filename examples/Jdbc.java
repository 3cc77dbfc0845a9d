import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.Properties;

/**
 * JDBC: one connection, made anew when it is lost. A pool (HikariCP with maxLifetime) does the same by isValid().
 *
 * <p>Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.
 *
 * <p>JDBC_URL comes from: proxyctl connection-string --format jdbc --user app --database shop
 */
public class Jdbc {
    /** Milliseconds for one order, a failover included. */
    private static final long PATIENCE = 60_000;

    private static Connection connection;

    private static Connection connected() throws SQLException {
        if (connection == null || !connection.isValid(2)) {
            Properties login = new Properties();
            login.setProperty("password", System.getenv("PGPASSWORD"));
            // Seconds: pgpivot holds new connections while it fails over.
            login.setProperty("loginTimeout", "40");
            connection = DriverManager.getConnection(System.getenv("JDBC_URL"), login);
        }
        return connection;
    }

    private static void save(long order) throws SQLException, InterruptedException {
        String insert = "INSERT INTO orders (client, id) VALUES ('jdbc', ?) ON CONFLICT DO NOTHING";
        long deadline = System.currentTimeMillis() + PATIENCE;
        for (long wait = 100; ; wait = Math.min(wait * 2, 2000)) {
            try (PreparedStatement statement = connected().prepareStatement(insert)) {
                statement.setLong(1, order);
                statement.executeUpdate();
                return;
            } catch (SQLException error) {
                System.err.println("trying again: " + error.getMessage());
                if (System.currentTimeMillis() > deadline) {
                    throw error;
                }
                Thread.sleep(wait);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            save(Long.parseLong(line));
            System.out.println("saved " + line);
        }
        StringBuilder all = new StringBuilder("read");
        String select = "SELECT id FROM orders WHERE client = 'jdbc' ORDER BY id";
        try (ResultSet rows = connected().createStatement().executeQuery(select)) {
            while (rows.next()) {
                all.append(' ').append(rows.getLong(1));
            }
        }
        System.out.println(all);
    }
}
