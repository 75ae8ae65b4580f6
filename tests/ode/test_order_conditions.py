"""There are as many conditions as there are rooted trees."""

from sklearn_inverse.ode._order_conditions import density, rooted_trees


def test_number_and_density_of_rooted_trees():
    # Hairer, Nørsett & Wanner I, Table II.2.1.
    assert [len(rooted_trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    assert sorted(density(tree) for tree in rooted_trees(4)) == [4, 8, 12, 24]
